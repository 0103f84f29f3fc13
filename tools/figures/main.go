// Command figures prints the sizes, the contracts and the language of a tree of Go code and of Markdown pages, as a table.
// It measures and must not judge: what is bounded is bounded by the linter and by tests.
//
// Usage: figures [ROOT [PAGE...]]
//
// Code that was generated or vendored isn't counted. Tests are files *_test.go, and all below folders called test, tests,
// testing and testutil; figures speak of the other files but where they say tests. A function begins with its signature.
// "Wrapped errors" compares lines with %w with lines that return err as it came; "in exported functions only" compares
// what their return statements say. Sentences and paragraphs are measured in words.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root, pages := ".", []string{"README.md"}

	if len(os.Args) > 1 {
		root = os.Args[1]
	}

	if len(os.Args) > 2 {
		pages = os.Args[2:]
	}

	if err := run(root, pages); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

func run(root string, pages []string) error {
	f, err := measureTree(root)
	if err != nil {
		return err
	}

	rows := f.rows()

	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			return fmt.Errorf("read the page: %w", err)
		}

		rows = append(rows, pageRow(page, string(text)))
	}

	fmt.Fprintln(os.Stdout, "| figure | value |\n|---|---|")

	for _, r := range rows {
		fmt.Fprintf(os.Stdout, "| %s | %s |\n", r.name, r.value)
	}

	return nil
}
