package prose_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/tools/figures/prose"
)

func TestParagraphs(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		page string
		want []string
	}{
		"nothing":                           {"", nil},
		"lines are joined":                  {"one\ntwo\n\nthree\n", []string{"one two", "three"}},
		"a heading isn't prose":             {"# Title\none\n", []string{"one"}},
		"a table isn't prose":               {"one\n| a | b |\n|---|---|\ntwo\n", []string{"one", "two"}},
		"code isn't prose":                  {"one\n```\nmake test\n\n# all\n```\ntwo\n", []string{"one", "two"}},
		"items are paragraphs, and go on":   {"- one\n  two\n- three\n1. four\n", []string{"one two", "three", "four"}},
		"a link counts by its text":         {"see [the *map*](docs/a.md#b), ![picture](p.svg)\n", []string{"see the *map*, picture"}},
		"what is quoted counts":             {"> one\n> two\n", []string{"one two"}},
		"a hyphen in a line is no new item": {"one - two\n", []string{"one - two"}},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			assert.Equal(t, test.want, prose.Paragraphs(test.page))
		})
	}
}

func TestSentences(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		paragraph string
		want      []string
	}{
		"one without an end":       {"one two", []string{"one two"}},
		"two":                      {"One two. Three!", []string{"One two.", "Three!"}},
		"a bracket behind the end": {"One (two.) Three?", []string{"One (two.)", "Three?"}},
		"bold words":               {"**One.** Two.", []string{"**One.**", "Two."}},
		"a version is no end":      {"Kubernetes 1.30 or later.", []string{"Kubernetes 1.30 or later."}},
		"an abbreviation is none":  {"Stores, e.g. S3. Others.", []string{"Stores, e.g. S3.", "Others."}},
		"a colon is none":          {"One: two; three.", []string{"One: two; three."}},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			assert.Equal(t, test.want, prose.Sentences(test.paragraph))
		})
	}
}

func TestWords(t *testing.T) {
	t.Parallel()

	assert.Equal(t, 3, prose.Words(" one  two\nthree "))
	assert.Zero(t, prose.Words(""))
}
