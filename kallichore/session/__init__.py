"""One kernel looked after, over all its restarts.

`supervisor.supervise_session` owns a session's kernel lives, one at a time; `life` is one of them; `clients` is who
listens. What they decide is in `kallichore.conversation`.
"""
