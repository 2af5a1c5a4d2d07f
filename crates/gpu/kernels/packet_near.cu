#include "types.h"

#include "prologue_cuda.h"

#include "elements.h"
#include "packet_words.h"
#include "packet.h"

PACKET_ENTRIES(packet_near)
