"""What happened, told to whoever watches. Observers never touch the work: one that fails is logged and dropped.

    records     what is told: plain values
    bursts      finished requests together, sorted out once for all who watch
    observer    who is told: a method for each event; and one that keeps what tests ask for
    fan_out     one observer that tells several

Domain code holds one ``Observer``; ``app`` gives it a ``FanOut``.
"""
