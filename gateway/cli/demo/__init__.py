"""``turnout demo``: the story in the terminal, against a live gateway of its own.

How this package is laid out:

    command           the command: prepares, starts everything, ends everything
    preparation       examples, home, settings, registered versions, the route
    gateway_process   the gateway in a subprocess
    traffic           real digits at a steady rate, counted as clients see them
    watch             what the gateway says of itself, a few times a second
    screen            the live picture, or plain lines
    story             what happens, in order
"""
