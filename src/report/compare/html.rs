//! Compared plans as one self-contained HTML page: nothing fetched, no script.

use super::lines::{Line, Lines, sample};
use super::notes::notes;
use super::numbers::{Numbers, longest};
use super::{Compared, Known, strip};
use crate::report::human::{assumed, bytes, caches, percent, plural};
use crate::report::page::escape;
use crate::report::plan_html::{STYLE, axis};
use std::fmt::Write;

/// How lines and strips look.
pub(in crate::report) const OWN_STYLE: &str = include_str!("compare.css");

/// Returns the page: the frozen share of the units and the cost of a step over the epochs with one line a plan, a table
/// with what each plan comes to, and for each plan which unit is frozen when.
pub fn compare_html(plans: &[Compared]) -> String {
    let file = plans.first().map_or("", |compared| compared.plan.model.file.as_str());
    let title = escape(&format!("Freeze plans of {file}"));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}{OWN_STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    let numbers: Vec<Numbers> = plans.iter().map(|compared| Numbers::of(&compared.plan)).collect();
    header(&mut page, plans);
    charts(&mut page, plans, &numbers);
    table(&mut page, plans, &numbers);
    strips(&mut page, plans);
    page.push_str(
        "<footer class=\"dim\">\n<p>Flops and bytes are counted on the graph; a multiply-add is two flops. Loss, optimizer \
         and data are not in them. Shares and costs of an epoch are means over its steps.</p>\n</footer>\n</main>\n</body>\n\
         </html>\n",
    );
    page
}

fn header(page: &mut String, plans: &[Compared]) {
    let Some(plan) = plans.first().map(|compared| &compared.plan) else { return };
    let _ = write!(
        page,
        "<header>\n<p class=\"kicker\">Freeze plans compared</p>\n<h1>{}</h1>\n<p class=\"dim\">{} ({}), {} over {}, at \
         {}</p>\n</header>\n",
        escape(&plan.model.file),
        plural(plan.model.parameters, "parameter"),
        bytes(plan.model.bytes),
        plural(plans.len() as u64, "plan"),
        plural(longest(plans) as u64, "epoch"),
        escape(&assumed(plan)),
    );
}

fn charts(page: &mut String, plans: &[Compared], numbers: &[Numbers]) {
    page.push_str("<ol class=\"plans\">\n");
    for (index, compared) in plans.iter().enumerate() {
        let _ = write!(page, "<li><b>{}</b>", index + 1);
        let label = label(compared);
        if compared.is_unknown() {
            let _ =
                writeln!(page, "<span>{label} <span class=\"dim\">decides by what the run measures</span></span></li>");
            continue;
        }
        sample(page, index);
        let _ = writeln!(page, "<span>{label}</span></li>");
    }
    page.push_str("</ol>\n");
    let known = || plans.iter().zip(numbers).enumerate().filter(|(_, (compared, _))| !compared.is_unknown());
    let epochs = longest(plans);
    if epochs == 0 || known().next().is_none() {
        return;
    }
    let line = |(index, label, values)| Line { index, label, values };
    let lines = |values: fn(&Numbers) -> &[f64]| {
        known().map(|(index, (compared, own))| line((index, compared.label.as_str(), values(own)))).collect()
    };
    let cached = plans.iter().any(|compared| caches(&compared.plan));
    let _ = writeln!(page, "<div class=\"charts{}\">", if cached { " three" } else { "" });
    let share = Lines { title: "Frozen", about: "share of the units, by epoch", lines: lines(|own| &own.shares) };
    share.draw(page, epochs);
    let about = "flops relative to nothing frozen, by epoch";
    Lines { title: "Cost of a step", about, lines: lines(|own| &own.costs) }.draw(page, epochs);
    if cached {
        let lines = lines(|own| &own.cached_costs);
        Lines { title: "Cost of a step with a cached prefix", about, lines }.draw(page, epochs);
    }
    page.push_str("</div>\n");
}

fn table(page: &mut String, plans: &[Compared], numbers: &[Numbers]) {
    page.push_str(
        "<section>\n<h2>What each comes to</h2>\n<div class=\"wide all\" tabindex=\"0\" role=\"region\" \
         aria-label=\"plans\">\n<table class=\"compared\">\n<thead><tr><th scope=\"col\"></th><th scope=\"col\" class=\"path\">plan</th>",
    );
    let names = [
        "frozen at the end",
        "first freeze",
        "compute saved, speedup",
        "with a cached prefix",
        "kept for backward",
        "gradients and slots",
    ];
    for name in names {
        let _ = write!(page, "<th scope=\"col\">{name}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (index, (compared, numbers)) in plans.iter().zip(numbers).enumerate() {
        let _ = write!(page, "<tr><th scope=\"row\">{}</th><td class=\"path\">{}</td>", index + 1, label(compared));
        if compared.is_unknown() {
            let _ = writeln!(page, "<td class=\"told\" colspan=\"{}\">not known ahead</td></tr>", names.len());
            continue;
        }
        let first = match numbers.first {
            None => "never".into(),
            Some(at) if at.after == 0 => format!("epoch {}", at.epoch),
            Some(at) => format!("epoch {}, step {}", at.epoch, at.after + 1),
        };
        let unsure = if matches!(compared.known, Known::Assuming(_)) { "assumed " } else { "" };
        for cell in [
            format!("{unsure}{} of {}", numbers.frozen, numbers.units),
            first,
            format!("{}, {:.2}x", percent(numbers.saved), numbers.ceiling),
            format!("{}, {:.2}x", percent(numbers.saved_cached), numbers.ceiling_cached),
            range(numbers.activation_bytes),
            range(numbers.state_bytes),
        ] {
            let _ = write!(page, "<td>{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
    let notes = notes(plans);
    if !notes.is_empty() {
        page.push_str("<ul class=\"notes\">\n");
        for (note, of) in notes {
            let _ = writeln!(page, "<li><span class=\"of\">{of}</span> {}</li>", escape(&note));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</section>\n");
}

/// Returns what a plan is called, with places where a line may break.
fn label(compared: &Compared) -> String {
    escape(&compared.label).replace(',', ",<wbr>").replace(':', ":<wbr>")
}

fn range((low, high): (u64, u64)) -> String {
    let whole = |value| bytes(value).replace(' ', "\u{a0}");
    if low == high { whole(low) } else { format!("{} to {}", whole(low), whole(high)) }
}

fn strips(page: &mut String, plans: &[Compared]) {
    page.push_str(
        "<section>\n<h2>Which unit is frozen when</h2>\n<p class=\"dim\">Units from the input side down, epochs from the \
         left; paler where a unit is frozen in a part of the epoch.</p>\n<div class=\"strips\">\n",
    );
    for (index, compared) in plans.iter().enumerate().filter(|(_, compared)| !compared.is_unknown()) {
        let plan = &compared.plan;
        let _ = write!(
            page,
            "<figure><figcaption><b>{}</b> {} <span class=\"dim\">{}</span></figcaption>",
            index + 1,
            label(compared),
            plural(plan.units.len() as u64, "unit")
        );
        if strip::draw(page, plan) {
            axis(page, plan.epochs.len(), "axis");
        } else {
            page.push_str("<p class=\"dim\">changes too often to be drawn</p>");
        }
        page.push_str("</figure>\n");
    }
    page.push_str("</div>\n</section>\n");
}
