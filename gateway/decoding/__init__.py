"""Large JSON bodies, decoded outside the gateway's process: a parser holds the interpreter lock for its whole parse.

memories    what the two processes share, used again and again
wire        the messages between them
process     the decoder: one text after another, each into typed arrays
decoder     one decoder as the gateway holds it
pool        what waits, in a fair order, and as many decoders as it takes
"""
