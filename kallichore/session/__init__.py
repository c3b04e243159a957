"""One kernel looked after, over all its restarts.

`session` is what others hold; `supervisor` runs its kernels' lives, one at a time; `life` is one of them; `clients` is
who listens. What they decide is in `kallichore.conversation`.
"""
