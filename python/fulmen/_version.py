# SPDX-License-Identifier: Apache-2.0
"""The package's version; tests hold it equal to the library's."""

__version__ = "0.1.0"
__git_version__ = "unknown"
