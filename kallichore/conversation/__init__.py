"""What a session decides: what each message means, what runs, what waits, what is owed to whom.

All of it is pure: messages and times in, decisions out. `kallichore.session` acts on them.
"""
