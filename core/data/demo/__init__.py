"""The invented corpus: actors draws its people, moods and voices, rendering their faces."""
