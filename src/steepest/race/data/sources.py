"""The files the tasks read: canonical addresses and checksums.

Checksums are of the files at these addresses, as TensorFlow Datasets and the Hugging Face hub also record
them; those of LIBSVM and Tiny Shakespeare were taken from copies of the files.
"""

from __future__ import annotations

from steepest.race.data.lookup import Source

_FASHION = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
_GLUE = "https://dl.fbaipublicfiles.com/glue/data/"

IDX_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def _idx(dataset: str, url: str, checksums: tuple[str, str, str, str]) -> dict[str, Source]:
    return {
        part: Source(
            f"{dataset}/{file}.gz",
            f"{url}{file}.gz",
            checksum,
            (f"{dataset}/{file}", f"{dataset}/raw/{file}", f"{dataset}/raw/{file}.gz"),
        )
        for (part, file), checksum in zip(IDX_FILES.items(), checksums, strict=True)
    }


FASHION_MNIST = _idx(
    "fashion-mnist",
    _FASHION,
    (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
MNIST = _idx(
    "mnist",
    _MNIST,
    (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
CIFAR10 = Source(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    (
        "cifar-10-batches-bin",
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        "cifar10",
        "cifar10-jpeg.tar.xz",
    ),
)
TINY_SHAKESPEARE = Source(
    "tinyshakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
MUSHROOMS = Source(
    "mushrooms",
    _LIBSVM + "mushrooms",
    "f39a4eb628dc61a7d43760815b061c9e497aa728ce1ad8bde57a09ef6043b538",
)
A9A = Source("a9a", _LIBSVM + "a9a", "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906")
SST2 = Source(
    "SST-2.zip",
    _GLUE + "SST-2.zip",
    "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
    ("SST-2", "sst2_train.tsv"),
)
COLA = Source(
    "CoLA.zip",
    _GLUE + "CoLA.zip",
    "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff",
    ("CoLA", "CoLA_train.tsv"),
)
