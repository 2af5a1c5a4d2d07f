// How the blocks of one index meet over all ranks: each thread t < world posts to peer t and waits for peer t.
//
// What every rank's block did before the meeting is seen by every rank's block after it. For that the posts are release
// stores and the waits acquire loads at system scope, and the block meets before posting and after waiting.
#pragma once

// Waits until the word holds what is expected; false when patience ends first. `found` is what it held last.
DEVICE bool wait_for(const u32* word, u32 expected, u64 patience, u32& found) {
    found = load_acquire(word);
    if (found == expected) {
        return true;
    }
    const u64 start = ticks();
    do {
        found = load_acquire(word);
        if (found == expected) {
            return true;
        }
    } while (ticks() - start < patience);
    return false;
}

// Tells the host for whom this thread waited in vain. The first such thread of the rank is heard.
DEVICE void report_overdue(const Call& call, u32 peer, u32 expected, u32 found) {
    Overdue* overdue = call.overdue;
    if (!claim(&overdue->state)) {
        return;
    }
    overdue->rank = call.rank;
    overdue->block = block_index();
    overdue->peer = peer;
    overdue->expected = expected;
    overdue->found = found;
    overdue->flag = ((expected % 2) * MAX_BLOCKS + block_index()) * MAX_RANKS + peer;
    store_release(&overdue->state, 2);
}

// Posts to one peer and waits for it; false when it did not come in time.
DEVICE bool meet_peer(const Call& call, u32 peer) {
    const u32 block = block_index();
    Signal* own = call.signals[call.rank];
    const u32 number = ++own->met[block][peer];
    store_release(&call.signals[peer]->posted[number % 2][block][call.rank], number);
    u32 found;
    if (wait_for(&own->posted[number % 2][block][peer], number, call.patience, found)) {
        return true;
    }
    report_overdue(call, peer, number, found);
    return false;
}

// Before anything of the peers' is read: what their streams did before this launch is seen. False: end.
template <u32 world>
DEVICE bool meet_at_start(const Call& call) {
    const u32 peer = thread_index();
    const bool overdue = peer < world && !meet_peer(call, peer);
    return !block_any(overdue);
}

// Between two phases: what this block wrote is seen by the peers' blocks, and theirs by this one. False: end.
template <u32 world>
DEVICE bool meet_between(const Call& call) {
    block_sync();
    return meet_at_start<world>(call);
}

// After the last read of the peers' memory: they may overwrite it once this launch has ended.
template <u32 world>
DEVICE void meet_at_end(const Call& call) {
    block_sync();
    const u32 peer = thread_index();
    if (peer < world) {
        meet_peer(call, peer);
    }
}
