package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/estiba-dev/estiba/tools/figures/prose"
)

// row is one line of the table.
type row struct{ name, value string }

// rows returns the figures in words.
func (f figures) rows() []row {
	return slices.Concat(f.sizes(), f.contracts(), f.language())
}

func (f figures) sizes() []row {
	var (
		lines      = pick(f.functions, func(x function) int { return x.lines })
		production = pick(f.productionFunctions, func(x function) int { return x.lines })
		cyclomatic = pick(f.functions, func(x function) int { return x.cyclomatic })
		nesting    = pick(f.functions, func(x function) int { return x.nesting })
		parameters = pick(f.functions, func(x function) int { return x.parameters })
	)

	return []row{
		{"kLOC (non-test)", decimal(f.codeLines, 1000)},
		{"test:code", fmt.Sprintf("%s (%s if `*test` packages count as tests)",
			ratio(f.testLines, f.codeLines), ratio(f.testLines+f.namedTestLines, f.codeLines-f.namedTestLines))},
		{"file lines p50/p95/max", fmt.Sprintf("%s (production only %s)", at(f.fileLines, 50, 95, 100), at(f.productionLines, 50, 95, 100))},
		{"function lines p50/p95/p99/max", fmt.Sprintf("%s (max in production %s)", at(lines, 50, 95, 99, 100), at(production, 100))},
		{"functions >60 / >100", fmt.Sprintf("%d / %d of %d", above(lines, 60), above(lines, 100), len(lines))},
		{"cyclomatic p95/p99/max; >15", fmt.Sprintf("%s; %d", at(cyclomatic, 95, 99, 100), above(cyclomatic, 15))},
		{"nesting p95/max", at(nesting, 95, 100)},
		{"parameters p50/p95/max; >5", fmt.Sprintf("%s; %s", at(parameters, 50, 95, 100), percent(above(parameters, 5), len(parameters), 1))},
		{"files per package p50/p95/max", at(f.packageFiles, 50, 95, 100)},
		{"lines per package p50/p95", at(f.packageLines, 50, 95)},
		{"lines >120 columns", percent(f.longLines, f.codeLines, 1)},
	}
}

func (f figures) contracts() []row {
	return []row{
		{"packages with doc", fmt.Sprintf("%d/%d", f.packagesWithDoc, f.packages)},
		{"exported documented", fmt.Sprintf("%d/%d", f.docs.documented, f.docs.exported)},
		{"exported struct fields documented", fmt.Sprintf("%d/%d = %s", f.docs.documentedFields, f.docs.fields, percent(f.docs.documentedFields, f.docs.fields, 0))},
		{"wrapped errors, all", fmt.Sprintf("%s (%d:%d)", percent(f.wrapped, f.wrapped+f.bare, 0), f.wrapped, f.bare)},
		{"… in exported functions only", percent(f.exportedWorded, f.exportedWorded+f.exportedBare, 0)},
		{"`fmt.Errorf(\"…%v\", err)`", fmt.Sprint(f.lost)},
		{"nolint/kLOC", fmt.Sprintf("%s (%d)", ratio(f.suppressions*1000, f.codeLines), f.suppressions)},
		{"package variables/kLOC; `init()`", fmt.Sprintf("%s; %d", decimal(f.docs.variables*1000, f.codeLines), f.docs.inits)},
		{"interfaces: number, median, max methods", fmt.Sprintf("%d, %s, %s", len(f.docs.interfaces), at(f.docs.interfaces, 50), at(f.docs.interfaces, 100))},
		{"tests: number; `t.Run`; `time.Sleep`", fmt.Sprintf("%d; %d; %d", f.tests, f.subtests, f.sleeps)},
	}
}

func (f figures) language() []row {
	return []row{
		{"comment lines; words per doc comment p50/p95", fmt.Sprintf("%s; %s", percent(f.commentLines, f.codeLines, 0), at(f.docs.words, 50, 95))},
		{"\"X returns …\"", fmt.Sprint(f.docs.returns)},
		{"\"X gives …\"", fmt.Sprint(f.docs.gives)},
		{"\"X reports/returns whether …\"", fmt.Sprint(f.docs.reports)},
		{"\"X tells …\"", fmt.Sprint(f.docs.tells)},
	}
}

// pageRow returns the figures of a Markdown page.
func pageRow(name, page string) row {
	var words, sentences []int

	for _, paragraph := range prose.Paragraphs(page) {
		words = append(words, prose.Words(paragraph))
		sentences = append(sentences, pick(prose.Sentences(paragraph), prose.Words)...)
	}

	total := 0
	for _, n := range words {
		total += n
	}

	semicolons := strings.Count(strings.Join(prose.Paragraphs(page), " "), ";")

	return row{
		name + ": words; sentence p50/p95/max; paragraph p95; semicolons per 100 words",
		fmt.Sprintf("%d; %s; %s; %s", total, at(sentences, 50, 95, 100), at(words, 95), decimal(semicolons*100, total)),
	}
}

// at returns percentiles, with slashes between: of n values in order the one at (n-1)·p, counted from 0 and rounded down.
func at(values []int, percentiles ...int) string {
	if len(values) == 0 {
		return "–"
	}

	sorted := slices.Sorted(slices.Values(values))

	var words []string

	for _, p := range percentiles {
		words = append(words, fmt.Sprint(sorted[(len(sorted)-1)*p/100]))
	}

	return strings.Join(words, "/")
}

func above(values []int, bound int) int {
	n := 0

	for _, v := range values {
		if v > bound {
			n++
		}
	}

	return n
}

func pick[T any](from []T, value func(T) int) []int {
	values := make([]int, len(from))
	for i, x := range from {
		values[i] = value(x)
	}

	return values
}

func percent(part, whole, digits int) string {
	if whole == 0 {
		return "–"
	}

	return fmt.Sprintf("%.*f %%", digits, 100*float64(part)/float64(whole))
}

func ratio(a, b int) string { return quotient(a, b, 2) }

func decimal(a, b int) string { return quotient(a, b, 1) }

func quotient(a, b, digits int) string {
	if b == 0 {
		return "–"
	}

	return fmt.Sprintf("%.*f", digits, float64(a)/float64(b))
}
