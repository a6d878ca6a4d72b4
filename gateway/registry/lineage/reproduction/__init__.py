"""Training a version again: what is needed in a folder, what of it can be checked, the training, what differs.

folder       the folder, written and checked
  code, data, setting    each with its checks; checkout fetches a commit
training     the command run again, and its files beside the version's
difference   what exactly differs between two files
"""
