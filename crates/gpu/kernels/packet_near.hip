#include "types.h"

#include "prologue_hip.h"

#include "elements.h"
#include "packet_words.h"
#include "packet.h"

PACKET_ENTRIES(packet_near)
