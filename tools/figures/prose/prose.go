// Package prose takes a Markdown page apart into paragraphs and sentences, so that they can be measured.
// It leaves out what isn't prose: code, tables and headings. It must not judge what it finds.
package prose

import (
	"regexp"
	"slices"
	"strings"
)

// Paragraphs returns the text of each paragraph of a page. A list item is a paragraph of its own, and of a link only
// the text counts.
func Paragraphs(page string) []string {
	var (
		found   []string
		current []string
		code    bool
	)

	end := func() {
		if text := strings.TrimSpace(strings.Join(current, " ")); text != "" {
			found = append(found, link.ReplaceAllString(text, "$1"))
		}

		current = nil
	}

	for line := range strings.Lines(page) {
		line = strings.TrimSpace(quote.ReplaceAllString(line, ""))

		switch {
		case strings.HasPrefix(line, "```"):
			code = !code

			end()
		case code:
		case line == "", strings.HasPrefix(line, "#"), strings.HasPrefix(line, "|"):
			end()
		case listItem.MatchString(line):
			end()

			current = append(current, listItem.ReplaceAllString(line, ""))
		default:
			current = append(current, line)
		}
	}

	end()

	return found
}

var (
	link        = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
	listItem    = regexp.MustCompile(`^(?:[-*+]|\d+\.)\s+`)
	quote       = regexp.MustCompile(`^\s*>\s?`)
	sentenceEnd = regexp.MustCompile(`[.!?][)"*_]*\s+`)
	// abbreviation ends in a stop that ends no sentence.
	abbreviation = regexp.MustCompile(`\b(?:e\.g|i\.e|etc|vs)$`)
)

// Sentences returns the sentences of a paragraph. A sentence ends in a full stop, a question mark or an exclamation
// mark with a space behind it.
func Sentences(paragraph string) []string {
	var (
		found []string
		start int
	)

	for _, end := range sentenceEnd.FindAllStringIndex(paragraph, -1) {
		if !abbreviation.MatchString(paragraph[start:end[0]]) {
			found = append(found, strings.TrimSpace(paragraph[start:end[1]]))
			start = end[1]
		}
	}

	found = append(found, strings.TrimSpace(paragraph[start:]))

	return slices.DeleteFunc(found, func(s string) bool { return s == "" })
}

// Words returns how many words a text has.
func Words(text string) int { return len(strings.Fields(text)) }
