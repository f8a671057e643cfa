"""Fast execution of built networks: the numbers of the plain one to rounding, in less time and memory.

``accelerate(net)`` gives the modules it knows another class, of the same name and the same parameters, whose forward
computes what the paper's does in another order; ``plain(net)`` gives the paper's classes back. A forward of these
classes steps aside, and calls the paper's, wherever somebody wants to see the single layers: with hooks, replaced or
changed layers, compilers, tracers, counters. So what is fast is a property of a network, and what runs in it is
decided anew at each call.

    eligible    when a fast forward may run
    convolutions, attention, feedforward, experts, gates    the parts of blocks
    strips    inference strip by strip, in place
    blocks, networks    what runs in strips
    acceleration    accelerate and plain
"""

from ddsa_arch.fast.acceleration import Acceleration, accelerate, is_accelerated, plain

__all__ = ['Acceleration', 'accelerate', 'is_accelerated', 'plain']
