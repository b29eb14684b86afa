"""llmjax: where every clock cycle of a language model goes, on any chip."""
