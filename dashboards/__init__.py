"""Grafana's dashboards for Turnout, as typed Python: ``python -m dashboards`` writes them to config/grafana.

    queries   expressions that several panels share, as text
    panels    the few kinds of panel that the boards are made of
    board     sections, variables, marks of what changed, links: what all four boards have alike
    overview, route, rollout, drift_and_truth
              the four boards; each asks an operator's questions in the order in which they come up
    provisioning
              where Grafana finds Prometheus, Jaeger and the boards
    generate  every file and its text

The files are checked in, and a test holds them to what this package writes. It imports neither ``gateway`` nor
``runtimes``, and is in no wheel: it needs ``grafana-foundation-sdk``, which the extra ``dev`` brings.
"""
