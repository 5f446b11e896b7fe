"""Globals that all processes and threads of a program share."""

from suitkaise import skglobals, sktree, xprocess

xp = xprocess.CrossProcessing()


def vote(booth):
    skglobals.update("votes", lambda votes: {**votes, booth: skglobals.get("weight")})


votes, weight = {}, 2
skglobals.create(votes)  # under the name of the variable
skglobals.create(weight)
for booth in range(3):
    xp.create_process(vote, args=(booth,), kwargs={"join_after": 1})
xp.join_all()
print(skglobals.get("votes") == {0: 2, 1: 2, 2: 2}, sorted(skglobals.get_all()))
sktree.disconnect()

# prints: True ['votes', 'weight']
