"""The smallest model there is, logged as code: nothing is pickled.

https://mlflow.org/docs/latest/ml/model/models-from-code/
"""

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Doubler(PythonModel):
    """Returns each number doubled."""

    def predict(self, model_input: list[int]) -> list[int]:  # type: ignore[override]
        return [2 * value for value in model_input]


set_model(Doubler())
