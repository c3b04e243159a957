import subprocess, sys, time, os, signal
def test_child_leaks():
    subprocess.Popen(["sleep","100"])
def test_grandchild_leaks():
    subprocess.run(["sh","-c","setsid sleep 100 >/dev/null 2>&1 &"])
def test_zombie():
    p=subprocess.Popen(["true"]); time.sleep(.1); p.returncode=0
def test_file(private_place):
    (private_place/"x").mkdir(); (private_place/"x"/"y").write_text("")
def test_ok(): pass
def test_hang(monkeypatch):
    signal.alarm(1)
    time.sleep(20)
async def test_hang_trio():
    import trio
    signal.alarm(1)
    await trio.sleep(20)
