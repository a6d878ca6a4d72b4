"""Bytes to arrays and back, pure: no clock, no I/O, no event loop.

limits        what a body may cost before anyone looks at its meaning; JSON read under them
inflate       gzip and deflate under a cap
faults        problems collected with their places, bounded
rows          rectangular numbers straight from their text
cut           long lists of numbers, cut out of a text
large         a large body, read without an object for each number
values        nested JSON values to one array of a datatype, exactly
shapes        arrays against a signature: rank, sizes, equal axes, rows
bfloat        BF16, which numpy does not have
parameters    timeout and priority, the same in both dialects
json_inputs   the ``/predict`` envelope
json_outputs  outputs as JSON that is always valid
oip_request   Open Inference Protocol v2: an infer request, read
oip_json      the same, fitted to a signature
oip_binary    its binary tensor data extension, both ways
oip_outputs   its response
"""
