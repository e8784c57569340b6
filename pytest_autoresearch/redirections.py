"""The variables by which git is led to another repository than the one that it stands in.

A git hook that starts pytest leaves them set; whoever runs git takes them away first.
"""

REDIRECTIONS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
)
