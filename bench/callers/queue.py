"""The queue comparison's side of pyzmq: XPUB and SUB over ipc, one from the writer to all readers, one from each reader back.

The loops, checks and words are those of bench/src/queue/loops.rs. Nothing may be lost: XPUB_NODROP, and a publisher that waits
where a queue is full. A message is handed to zmq as bytes and taken as bytes, the fastest way for small ones; in place is what zmq
calls copy=False.
"""

import array
import os
import socket
import sys
import time

import zmq

HIGH_WATER_MARK = 65536
TIMEOUT_MS = 60_000


class Seat:
    def __init__(self):
        self.rank = int(os.environ["RANK"])
        self.readers = int(os.environ["WORLD_SIZE"]) - 1
        cpus = [int(word) for word in os.environ["BENCH_CPUS"].split(",")]
        os.sched_setaffinity(0, {cpus[self.rank % len(cpus)]})
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        except PermissionError:
            pass  # As for all others: more noise.
        context = zmq.Context()
        place = "ipc://" + os.environ["BENCH_SOCKET"] + ".zmq-"
        self.publisher = context.socket(zmq.XPUB)
        self.publisher.setsockopt(zmq.XPUB_NODROP, 1)
        self.publisher.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.publisher.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        self.publisher.setsockopt(zmq.LINGER, 0)
        self.publisher.bind(place + str(self.rank))
        self.subscribers = []
        for other in range(1, self.readers + 1) if self.rank == 0 else [0]:
            subscriber = context.socket(zmq.SUB)
            subscriber.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
            subscriber.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
            subscriber.setsockopt(zmq.SUBSCRIBE, b"")
            subscriber.connect(place + str(other))
            self.subscribers.append(subscriber)
        # An XPUB hears of each subscription.
        for _ in range(self.readers if self.rank == 0 else 1):
            self.publisher.recv()

    def serve(self):
        driver = socket.socket(socket.AF_UNIX)
        driver.connect(os.environ["BENCH_SOCKET"])
        driver.sendall(f"rank {self.rank} {os.getpid()} {os.getsid(0)}\n".encode())
        for line in driver.makefile("r"):
            what, *words = line.split()
            if what == "quit":
                return
            if what == "echo":
                answer = self.echo(words[0] == "copied", *map(int, words[1:]))
            elif what == "stream":
                answer = self.stream(*map(int, words))
            elif what == "rest":
                answer = self.rest(int(words[0]))
            else:
                sys.exit(f"{line!r} is no request")
            driver.sendall(answer)

    def echo(self, copied, size, warm_up, messages):
        send, tail = self.publisher.send, bytes(size - 9)
        if self.rank > 0:
            receive = self.subscribers[0].recv
            for _ in range(warm_up + messages):
                send(receive(copy=copied), copy=copied)
            return b"wrong 0\n"
        samples, wrong, clock = array.array("I"), 0, time.perf_counter_ns
        blank = bytearray(size)
        for number in range(warm_up + messages):
            first = number.to_bytes(8, "little")
            if copied:
                message = first + tail + first[:1]
            else:
                blank[:8] = first
                message = blank
            start = clock()
            send(message, copy=copied)
            for subscriber in self.subscribers:
                received = subscriber.recv(copy=copied)
            round_trip = clock() - start
            wrong += (received if copied else received.buffer[:8].tobytes()) != (message if copied else first)
            if number >= warm_up:
                samples.append(round_trip // 2)
        return f"samples {messages} {wrong}\n".encode() + samples.tobytes()

    def stream(self, size, messages):
        if self.rank > 0:
            receive, wrong = self.subscribers[0].recv, 0
            for number in range(messages):
                message, expected = receive(), number.to_bytes(8, "little")
                wrong += message[:8] != expected or message[-1] != expected[0]
            self.publisher.send(bytes(8))
            return f"wrong {wrong}\n".encode()
        send, tail, start = self.publisher.send, bytes(size - 9), time.perf_counter_ns()
        for number in range(messages):
            first = number.to_bytes(8, "little")
            send(first + tail + first[:1])
        for subscriber in self.subscribers:
            subscriber.recv()
        of_a_thousand = (time.perf_counter_ns() - start) * 1000 // messages
        return b"samples 1 0\n" + array.array("I", [of_a_thousand]).tobytes()

    def rest(self, milliseconds):
        before = time.process_time_ns()
        if self.rank == 0:
            time.sleep(milliseconds / 1000)
            self.publisher.send(bytes(8))
        else:
            self.subscribers[0].recv()
        used = (time.process_time_ns() - before) // 1000
        return b"samples 1 0\n" + array.array("I", [used]).tobytes()


Seat().serve()
