#include "types.h"

#include "prologue_hip.h"

#include "elements.h"
#include "meeting.h"
#include "all_reduce.h"
#include "entries.h"
#include "fused.h"

#undef ENTRY
#define ENTRY FUSED_ENTRY
ENTRIES(two_shot_norm)
