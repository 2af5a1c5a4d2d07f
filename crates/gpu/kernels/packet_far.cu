#include "types.h"

#include "prologue_cuda.h"

#include "elements.h"
#include "packet_words.h"
#include "packet.h"

PACKET_ENTRIES(packet_far)
PACKET_ENTRIES_OF_ONE(packet_far)
