"""Nodes for ComfyUI, which loads this folder from its ``custom_nodes``; ``ddsa comfyui PATH`` puts it there.

ComfyUI must run in a Python in which this package is installed.
"""

from __future__ import annotations

from ddsa_arch.integrations.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ['NODE_CLASS_MAPPINGS', 'NODE_DISPLAY_NAME_MAPPINGS']
