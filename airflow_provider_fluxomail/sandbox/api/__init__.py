"""The v1 API as the sandbox imitates it: sends, timelines, events, the event stream."""
