"""``turnout top``: a running gateway in the terminal, as it is now.

How this package is laid out:

    command           the command: the live view, or one snapshot
    live              the live view: looks, draws, obeys keys, ends
    keys              what is typed, and the terminal as it was before
    asking            what the gateway is asked, as seldom as may be
    exposition_text   its metrics, read
    rates             what happened between two looks
    picture           what is shown, as values
    reading           from looks and facts to the picture
    screen            the picture as lines that fit
    head, panes, grid, words    their parts

From ``exposition_text`` to ``words`` values come in and values go out.
"""
