"""Gates: what a version must show before a name, a rollout or a target takes it, and what it showed.

declaration   what a model asks of its versions
process       runs the gates of one version, in a process of its own
running       starts that process, follows it and ends it
report        what was found, with the numbers
records       the report, signed, as a blob beside the manifest
"""
