#!/bin/sh
''':'
# The command kcserver as it is installed where there is a shell. It runs the Python that the package was installed for in
# isolated mode (-I): neither PYTHONPATH, PYTHONHOME nor a module in the current directory may take the place of what the
# server is made of, and with a broken PYTHONHOME no line of Python would run that could do something about it. The
# variables themselves stay as they are, for the kernels.
#
# To the shell, this is a script up to its exec. To Python, which is given the same file, all of that is one string.
me=$(command -p readlink -f -- "$0") || me=$0
case $me in */*) here=${me%/*} ;; *) here=. ;; esac

# Which Python that is, says the first line of kcclient, which was installed beside this. Where its path is long or has a
# blank, the second line does, behind the word exec.
{ IFS= read -r first && IFS= read -r second; } < "$here/kcclient"
rest=${second#*exec??}
case $first in
  "#!/bin/sh") case $rest in '"'*) rest=${rest#?} python=${rest%%'"'*} ;; *) python=${rest%% *} ;; esac ;;
  *) python=${first#??} ;;
esac
[ -x "$python" ] || python=$here/python3

# What is not installed beside its Python was installed for one user (pip install --user), and its packages as well: they
# would not be found with -I.
isolated=-I
[ "${python%/*}" -ef "$here" ] || isolated=-EP
exec "$python" "$isolated" "$0" "$@"
'''

import sys

from kallichore.cli.kcserver import main

if __name__ == "__main__":
    sys.exit(main())
