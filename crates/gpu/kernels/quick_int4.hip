#include "types.h"

#define THREADS 256
#include "prologue_hip.h"

#include "elements.h"
#include "meeting.h"
#include "codec.h"
#include "quick.h"

QUICK_ENTRIES(int4, 4)
