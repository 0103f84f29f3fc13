package docs

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// generatedPages have the words of the code.
var generatedPages = []string{"docs/kinds.md", "docs/flags.md"}

// guide returns the pages that operators read.
func guide(t *testing.T) []string {
	t.Helper()

	return slices.DeleteFunc(pages(t), func(page string) bool {
		return page != "README.md" && filepath.Dir(page) != "docs" || slices.Contains(generatedPages, page)
	})
}

var (
	fence = regexp.MustCompile("(?ms)^ *```([^\n]*)\n(.*?)^ *```$")
	// inline is what counts as one word: code, and the target of a link.
	inline = regexp.MustCompile("`[^`]*`|\\]\\([^)]*\\)|<!--.*?-->")
	bullet = regexp.MustCompile(`^ *(?:-|>|\d+\.) `)
	// sentenceEnd is the end of a sentence that another one follows.
	sentenceEnd = regexp.MustCompile(`[a-z0-9X)"]\.\s+[A-Z*]`)
)

// prose returns the lines of a page outside of code and tables.
func prose(text string) []string {
	var lines []string

	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		line = strings.TrimSpace(inline.ReplaceAllString(bullet.ReplaceAllString(line, ""), "X"))
		if line != "" && !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}

	return lines
}

func TestSentencesAreShortAndOnLinesOfTheirOwn(t *testing.T) {
	t.Parallel()

	for _, page := range guide(t) {
		most := 30
		if page == "README.md" {
			most = 25
		}

		for _, line := range prose(read(t, page)) {
			// Words that begin a paragraph in bold count by themselves.
			if _, rest, bold := strings.Cut(line, ".** "); bold {
				line = rest
			}

			assert.False(t, sentenceEnd.MatchString(line), "%s: one sentence a line: %s", page, line)
			assert.LessOrEqual(t, len(strings.Fields(line)), most, "%s: a long sentence: %s", page, line)
		}
	}
}

func TestTheReadmeIsShort(t *testing.T) {
	t.Parallel()

	assert.LessOrEqual(t, len(strings.Fields(read(t, "README.md"))), 600)
}

func TestPagesSpeakOfPVCs(t *testing.T) {
	t.Parallel()

	claim := regexp.MustCompile(`(?i)\bclaims?\b`)

	for _, page := range guide(t) {
		if page == "docs/glossary.md" || page == "docs/architecture.md" {
			continue
		}

		for line := range strings.Lines(fence.ReplaceAllString(read(t, page), "")) {
			assert.False(t, claim.MatchString(inline.ReplaceAllString(line, "X")), "%s: write PVC: %s", page, line)
		}
	}
}

// Commands are run by a test, which the fence names, or they are examples, and the reader is told so.
func TestCommandsAreRunByATestOrMarked(t *testing.T) {
	t.Parallel()

	known := functions(t)

	for _, page := range guide(t) {
		for _, m := range fence.FindAllStringSubmatch(read(t, page), -1) {
			language, names, _ := strings.Cut(m[1], " ")
			if language != "sh" {
				assert.NotRegexp(t, `(?m)^\s*(velero|kubectl|estiba|make) `, m[2], "%s: commands want a fence of sh", page)

				continue
			}

			if strings.HasPrefix(strings.TrimSpace(m[2]), "# example") {
				continue
			}

			assert.NotEmpty(t, names, "%s: begin with # example, or name the test that runs this:\n%s", page, m[2])

			for _, name := range strings.Fields(names) {
				assert.Contains(t, known, name, page)
			}
		}
	}
}

// functions returns the names of all functions below tests.
func functions(t *testing.T) []string {
	t.Helper()

	var names []string

	declared := regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?(\w+)\(`)

	require.NoError(t, filepath.WalkDir(filepath.Join(root, "tests"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}

		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(source, -1) {
			names = append(names, string(m[1]))
		}

		return err
	}))

	return names
}

// Messages and comments name pages by their paths.
func TestCodeNamesPagesThatExist(t *testing.T) {
	t.Parallel()

	named := regexp.MustCompile(`\bdocs/[\w/-]+\.md(#[\w-]+)?`)

	for _, dir := range []string{"cmd", "examples", "mover", "plugins", "tests"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) == ".md" {
				return err
			}

			source, err := os.ReadFile(path)

			for _, m := range named.FindAll(source, -1) {
				page, anchor, _ := bytes.Cut(m, []byte("#"))
				leads(t, path, string(page), string(anchor))
			}

			return err
		}))
	}
}
