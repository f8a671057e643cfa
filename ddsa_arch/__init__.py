"""ddsa_arch: image deraining in the BasicSR toolbox.

``import ddsa_arch`` fills BasicSR's registries with the networks, data sets, losses, metrics and models of this
package, so that any BasicSR option file can name them. It changes nothing else: no files, no threads, no logger.
"""

from ddsa_arch import compat, openmp

openmp.wait_considerately()  # before torch is loaded
compat.repair()

from ddsa_arch import archs, data, losses, metrics, models  # noqa: E402
from ddsa_arch.inference.derainer import Derainer  # noqa: E402

__version__ = '0.1.0'

__all__ = ['Derainer', 'archs', 'data', 'losses', 'metrics', 'models']
