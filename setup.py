"""Packaging of ddsa_arch: see README.md for the two commands that need no packaging knowledge at all."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'ddsa_arch' / '__init__.py').read_text('utf-8')).group(1)

setup(
    name='ddsa_arch',
    version=VERSION,
    description='Image deraining in the BasicSR toolbox: DDSANet, its baselines, data, training and evaluation',
    long_description=(HERE / 'README.md').read_text('utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['ddsa_arch', 'ddsa_arch.*']),
    package_data={
        'ddsa_arch': [
            'LICENSE',
            'CITATION.cff',
            'CHANGELOG.md',
            'archs/published.yml',
            'comparison/gallery/page/*',
            'weights/*',
        ],
    },
    install_requires=[
        # BasicSR's own build fails on 3.13 and later; scripts/quickstart.py installs it there all the same
        'basicsr>=1.4.2; python_version < "3.13"',
        'lmdb>=1.4',
        'matplotlib>=3.6',
        'mmengine>=0.10.7',
        'numpy>=1.24',
        'opencv-python>=4.8',
        'pillow>=10.1',
        'psutil>=5.9',
        'pyyaml>=6.0',
        'safetensors>=0.4',
        'scikit-image>=0.22',  # the photos of the quickstart
        'scipy<2',  # BasicSR imports scipy.ndimage.filters
        'setuptools',  # BasicSR imports distutils
        'tensorboard>=2.14; python_version >= "3.13"',  # BasicSR brings its nightly, which shares the folder
        'torch>=2.4',
        'torchvision>=0.19',
        'tqdm>=4.65',
    ],
    extras_require={
        'brisque': ['brisque>=0.2'],  # of which the model alone is used: pip install --no-deps brisque does too
        'demo': ['gradio>=6'],
        'download': ['gdown>=6.4'],  # older ones have no timeout and take an error page for the file
        'export': ['onnx>=1.17', 'onnxruntime>=1.19', 'onnxscript>=0.3'],
        'spandrel': ['spandrel>=0.4'],
        'test': ['jsonschema>=4.17', 'playwright>=1.40', 'pytest>=8', 'pytest-xdist>=3.5', 'ruff>=0.6'],
    },
    entry_points={'console_scripts': ['ddsa = ddsa_arch.runners.cli:main']},
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Processing',
    ],
)
