#include "types.h"

#include "prologue_cuda.h"

#include "elements.h"
#include "meeting.h"
#include "all_reduce.h"
#include "entries.h"

ENTRIES(one_shot)
