"""Packaging of ddsa_arch: see README.md for the two commands that need no packaging knowledge at all."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'ddsa_arch' / '__init__.py').read_text('utf-8')).group(1)
OPTION_FILES = 'ddsa_arch.option_files'  # where the wheel has the folder options/
IN_SOURCE = ('.ci', '.github', 'datasets', 'options', 'scripts', 'tests')  # folders of the source distribution


class CompleteSdist(sdist):
    """A source distribution with the tests, the scripts and the option files."""

    def add_defaults(self) -> None:
        super().add_defaults()
        for folder in IN_SOURCE:
            paths = (path for path in Path(folder).rglob('*') if path.is_file() and '__pycache__' not in path.parts)
            self.filelist.extend(str(path) for path in paths if folder != 'datasets' or path.name == 'README.md')
        self.filelist.extend(('.pytest.ini', '.ruff.toml', '.gitignore', 'CITATION.cff'))


setup(
    name='ddsa_arch',
    version=VERSION,
    description='Image deraining in the BasicSR toolbox: DDSANet, its baselines, data, training and evaluation',
    long_description=(HERE / 'README.md').read_text('utf-8'),
    long_description_content_type='text/markdown',
    url='https://arxiv.org/abs/2308.07781',
    project_urls={
        'Paper': 'https://arxiv.org/abs/2308.07781',
        'BasicSR': 'https://github.com/XPixelGroup/BasicSR',
    },
    author='The ddsa_arch maintainers',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    keywords=['deraining', 'image restoration', 'BasicSR', 'transformer', 'PyTorch'],
    python_requires='>=3.10',
    cmdclass={'sdist': CompleteSdist},
    packages=[*find_packages(include=['ddsa_arch', 'ddsa_arch.*']), OPTION_FILES, 'ddsa_start'],
    package_dir={OPTION_FILES: 'options', 'ddsa_start': 'scripts/ddsa_start'},
    package_data={
        OPTION_FILES: ['*.md', '**/*.yml'],
        'ddsa_arch': [
            'CHANGELOG.md',
            'py.typed',
            'archs/measured.csv',
            'archs/published.yml',
            'comparison/gallery/page/*',
            'demo/page.js',
            'weights/*',
        ],
    },
    install_requires=[
        # BasicSR's own build fails on 3.10, where it asks for packages that do not go together, and on 3.13 and later;
        # there `ddsa doctor --repair` installs it
        'basicsr>=1.4.2; python_version >= "3.11" and python_version < "3.13"',
        'addict; python_version < "3.11" or python_version >= "3.13"',  # BasicSR's needs, down to yapf
        'future; python_version < "3.11" or python_version >= "3.13"',
        'requests; python_version < "3.11" or python_version >= "3.13"',
        'yapf; python_version < "3.11" or python_version >= "3.13"',
        'av>=17,<19',  # videos; its wheels bring the libraries of ffmpeg along, and 19 has other arguments
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
        'tensorboard>=2.14; python_version < "3.11" or python_version >= "3.13"',
        'tifffile>=2023.2',  # the tags of TIFF photos, of which Pillow opens a part; scikit-image brings it too
        'torch>=2.4',
        'torchvision>=0.19',
        'tqdm>=4.65',
    ],
    extras_require={
        'brisque': ['brisque>=0.2'],  # of which the model alone is used: pip install --no-deps brisque does too
        'demo': ['gradio>=6'],
        'download': ['gdown>=6.4'],  # older ones have no timeout and take an error page for the file
        'export': ['onnx>=1.17', 'onnxruntime>=1.19', 'onnxscript>=0.3'],
        'hub': ['huggingface_hub>=0.23'],  # Derainer.from_pretrained('user/name'), and ddsa export --push
        'photos': ['pillow>=11.3', 'pillow-heif>=0.18', 'pillow-jxl-plugin>=1.3'],  # AVIF, HEIC, JPEG XL
        'spandrel': ['spandrel>=0.4'],
        'test': [
            'jsonschema>=4.17',
            'mypy>=1.11',
            'playwright>=1.40',
            'pytest>=8',
            'pytest-xdist>=3.5',
            'ruff>=0.6',
            'types-psutil',
            'types-PyYAML',
            'types-tqdm',
        ],
    },
    entry_points={'console_scripts': ['ddsa = ddsa_start:main']},
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Processing',
    ],
)
