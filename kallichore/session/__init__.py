"""One kernel looked after, over all its restarts.

`supervisor.supervise_session` owns a session's kernel lives, one at a time; `life` is one of them; `conversation`
decides what each message means; the other modules are the pure parts that it decides with.
"""
