"""pandas is complete when it is used, and isn't imported before that."""

import subprocess
import sys

IMPORT = """
import sys, threading
from tracking_server.mlflow import lazy_pandas
with lazy_pandas.only_named():
    from mlflow.models import utils
    from mlflow.types import utils as types
    import mlflow.server
assert not [name for name in sys.modules if name.partition(".")[0] == "pandas"]
"""


USES = [
    # Use by MLflow's modules, with the module that `import pandas` gave them.
    "assert types._infer_pandas_column(utils.pd.Series([1])).name == 'long'",
    "import mlflow.data\n"
    "assert mlflow.data.from_pandas(utils.pd.DataFrame({'x': [1]})).profile['num_rows'] == 1",
    # Later imports get the same module.
    "import pandas; assert pandas is utils.pd; assert pandas.DataFrame().empty",
    "from pandas.api.types import is_integer; assert is_integer(1); utils.pd.concat",
    "from pandas import Series; assert Series is utils.pd.Series",
    # The classes in signatures recognize instances of pandas' own classes.
    "frame = utils.PyFuncOutput.__args__[0]\n"
    "assert not isinstance(1, frame)\n"
    "import pandas\n"
    "assert isinstance(pandas.DataFrame(), frame) and not isinstance(pandas.Series(), frame)\n"
    "assert issubclass(pandas.DataFrame, frame) and not issubclass(int, frame)",
    # Imported once, in the first thread; the others wait until it's complete.
    "found = []\n"
    "def use(): found.append(utils.pd.DataFrame({'x': [1]}).x.sum())\n"
    "threads = [threading.Thread(target=use) for _ in range(20)]\n"
    "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
    "assert found == [1] * 20",
    # In another thread pandas is run, even within `only_named`.
    "found = []\n"
    "def use(): found.append(type(utils.pd.DataFrame()).__name__)\n"
    "with lazy_pandas.only_named():\n"
    "    import pandas\n"
    "    thread = threading.Thread(target=use); thread.start(); thread.join()\n"
    "    assert pandas.DataFrame().empty\n"
    "assert found == ['DataFrame'] and pandas is utils.pd",
    "try: utils.pd.nonsense\n"
    "except AttributeError as error: assert 'nonsense' in str(error)\n"
    "else: raise SystemExit(1)",
]


# Each use runs in a forked process, which inherits the imports.
FORKS = """
import os, sys, traceback
for number, use in enumerate(USES):
    if process := os.fork():
        assert os.waitpid(process, 0)[1] == 0, USES[number]
        continue
    try:
        exec(use, dict(globals()))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
"""


def test_pandas_is_complete_at_its_first_use() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{IMPORT}\nUSES = {USES!r}\n{FORKS}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
