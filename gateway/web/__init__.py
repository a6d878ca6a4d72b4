"""HTTP: bytes in, bytes out.

application      who serves which path; the outermost boundary
exchange         one request and its one answer, on raw ASGI
inference        the life of one inference, whatever its dialect
predict, oip     the two dialects
oip_models       what a client asks about models; oip_repository: index, load, unload
health           /healthz and /readyz; standing: how each route stands
auth             bearer tokens; request_facts: the headers that a decision may depend on
body             receiving under limits; disconnect: dropping work whose client has left
identity         request ids and decision ids
problem_table    the one table from error to status; problems: how an error is told
statistics       the protocol's counters, kept by an observer
services         what all this needs of the rest
"""
