"""Where versions come from: recorded while a training runs, typed when it is read, compared, and done again.

places, kinds  the five kinds (code, data, parameters, environment, metrics) and features, each with its digest
recorder       ``record("fraud")``: what a training script says, and what is seen of it without its saying
  watching     which files a program opens, by an audit hook; stands alone, so that any interpreter can run it
  code         commit, tree, patch of what was not committed, entry point
  environment  packages, Python, machine; stands alone likewise
  files        data inputs and outputs, by digest; values, those in memory
  fitted       feature steps, with a digest of what was fitted
  recorded     the lineage file, put together and without secrets
command        a training that knows nothing of the recorder, run and recorded
comparison     what changed from one version to another
reproduction   a version trained again: its folder, what of it can be checked, what exactly differs
graph          a version and all that it was made from, as nodes and edges

What records a training (``recorder`` and below) imports the standard library and nothing of the gateway's servers.
"""
