#include "types.h"

#include "prologue_cuda.h"

#include "elements.h"
#include "meeting.h"
#include "all_reduce.h"
#include "entries.h"
#include "multicast.h"

#undef ENTRY
#define ENTRY MULTICAST_ENTRY
ENTRIES(multicast_one_shot)
