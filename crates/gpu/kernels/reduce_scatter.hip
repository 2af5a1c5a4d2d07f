#include "types.h"

#include "prologue_hip.h"

#include "elements.h"
#include "meeting.h"
#include "all_reduce.h"
#include "halves.h"
#include "entries.h"

ENTRIES(reduce_scatter)
