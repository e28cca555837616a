"""What a person is told, decided once and rendered as text, HTML and figure."""
