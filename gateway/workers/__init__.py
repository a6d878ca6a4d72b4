"""Several web workers on one port, and the node that owns everything they share.

    node    today's gateway without public HTTP: store, control plane, runtime children, metrics, logs
    web     one process each: HTTP, queues, batches; its engines are channels to the node's children

What crosses between them: ``link`` (framed messages, descriptors), ``forms`` (what is told, as JSON),
``publisher`` and ``follower`` (the table in force, from the node to a worker), ``lender`` (channels to children),
``relay`` and ``replay`` (what happened, from a worker to the node), ``tunnel`` (all HTTP that is no inference).
"""
