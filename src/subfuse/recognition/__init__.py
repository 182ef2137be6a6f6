"""From a folder as it is to a draft of its cohort file: what is recognised is stated, what is not told is asked."""

from subfuse.recognition.draft import Draft, draft_of_folder

__all__ = ["Draft", "draft_of_folder"]
