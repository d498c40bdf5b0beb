"""Names of classes: those that a network says, numbers for the rest."""

from torch import nn

from zflib.explore.charts import class_name


def test_fewer_names_than_outputs():
    net = nn.Linear(2, 4)
    net.classes = ["cat", "dog"]
    assert [class_name(net, index) for index in (1, 3)] == ["dog", "class 3"]
