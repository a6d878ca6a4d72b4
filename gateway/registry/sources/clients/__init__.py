"""Clients of other systems: scripts for a process of their own, which import the standard library and one vendor.

Never imported by the gateway: ``gateway.registry.sources.calling`` runs ``child.py`` with the interpreter that has the
vendor's packages, and ``child.py`` imports the client that is asked for. A client is a module ``SYSTEM_client.py`` with

    def fetch(request, told): ...      # resolve once, download into request["folder"], give what is known of it
    def resolve(request): ...          # what does the name point at now: {"identity": {...}, "alias": …}; cheap
    def tell(request): ...             # optional: write back what became of a version here

and says what went wrong with built-in errors: ``child.py`` has the table.
"""
