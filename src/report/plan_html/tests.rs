use super::plan_html;
use crate::plan::testing::{Chain, chain, six_units};
use crate::plan::{FreezePlan, PlanOptions, build};

/// Returns the page without its own style and script, which do not come from a plan.
fn body(page: &str) -> String {
    let (before, rest) = page.split_once("<style>").unwrap();
    let (_, rest) = rest.split_once("</style>").unwrap();
    let Some((middle, rest)) = rest.split_once("<script>") else { return [before, rest].concat() };
    let (_, after) = rest.split_once("</script>").unwrap();
    [before, middle, after].concat()
}

/// Returns what is wrong with the tags of a page.
pub(in crate::report) fn unbalanced(page: &str) -> Option<String> {
    let mut open: Vec<String> = Vec::new();
    for tag in body(page).split('<').skip(1) {
        let Some((tag, _)) = tag.split_once('>') else { return Some(format!("\"{tag}\" does not end")) };
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if tag.starts_with('!') || tag.ends_with('/') || ["meta", "input", "br", "wbr"].contains(&name.as_str()) {
            continue;
        }
        if tag.matches('"').count() % 2 != 0 {
            return Some(format!("<{tag}> has an open quote"));
        }
        match tag.strip_prefix('/') {
            None => open.push(name),
            Some(_) if open.last() == Some(&name) => drop(open.pop()),
            Some(_) => return Some(format!("</{name}> closes {open:?}")),
        }
    }
    (!open.is_empty()).then(|| format!("{open:?} stay open"))
}

fn plan(model: &Chain, epochs: usize, options: &PlanOptions) -> FreezePlan {
    build(&model.inputs(epochs), options).unwrap()
}

#[test]
fn pages_are_well_formed_and_fetch_nothing() {
    let early = PlanOptions::default().with("freeze_start", 0.0);
    let kept = PlanOptions { keep: vec!["stem.conv".into()], ..early.clone() };
    let mut old = plan(&six_units(), 12, &early);
    old.units.iter_mut().for_each(|unit| unit.backward.clear());
    old.epochs.iter_mut().for_each(|epoch| epoch.predicted.forward_flops = 0);
    old.summary.verdict.clear();
    let pages = [
        ("six units", plan(&six_units(), 12, &early)),
        ("kept", plan(&six_units(), 12, &kept)),
        ("one unit", plan(&chain(1), 1, &early)),
        ("no unit", plan(&chain(0), 1, &early)),
        ("an older file", old),
        ("everything frozen", plan(&chain(2), 2, &PlanOptions { freeze: vec!["*".into()], ..early.clone() })),
        ("partial", plan(&Chain { uncounted: 1, cached: false, ..chain(9) }, 7, &early)),
    ];
    for (name, plan) in pages {
        let page = plan_html(&plan);
        assert_eq!(unbalanced(&page), None, "{name}");
        for forbidden in ["http", "src=", "href=", "url(", "@import", "NaN", "inf%"] {
            assert!(!page.contains(forbidden), "{name}: {forbidden}");
        }
    }
}

#[test]
fn names_are_escaped() {
    let hostile = "<script>alert(\"&'\")</script>\u{1b}";
    let mut model = six_units();
    model.units[0].path = hostile.into();
    model.units[1].class = hostile.into();
    model.units[2].parameters = vec![hostile.into()];
    model.model.file = hostile.into();
    model.model.exporter = hostile.into();
    let keep = vec!["fc".into()];
    let mut plan = plan(&model, 10, &PlanOptions { keep, ..PlanOptions::default() });
    plan.summary.notes.push(hostile.into());
    plan.summary.verdict = hostile.into();
    plan.assumed.inputs.insert(hostile.into(), vec![1]);
    plan.policy.settings.insert(hostile.into(), hostile.into());
    let page = plan_html(&plan);
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(!page.contains('\u{1b}'));
    assert!(page.contains("&lt;script&gt;alert(&quot;&amp;'&quot;)&lt;/script&gt;"));
    assert_eq!(unbalanced(&page), None);
}

#[test]
fn a_row_says_when_it_freezes_and_what_is_left() {
    let options = PlanOptions { keep: vec!["u1".into()], ..PlanOptions::default() };
    let page = plan_html(&plan(&chain(6), 10, &options));
    let row = |name: &str| page.lines().find(|line| line.contains(&format!("data-p=\"{name} "))).unwrap().to_string();
    assert!(row("u0").contains("<i class=\"ice\" style=\"flex:3\" title=\"epochs 8-10: 0 FLOP\">"), "{}", row("u0"));
    assert!(row("u0").contains("<span class=\"when\">8</span>"), "{}", row("u0"));
    assert!(!row("u1").contains("ice") && row("u1").contains("never"), "{}", row("u1"));
    assert!(row("u2").contains("h5 held"), "a gradient passes it while it is frozen: {}", row("u2"));
}

#[test]
fn modules_hold_their_units_and_sum_them() {
    let page = plan_html(&plan(&six_units(), 10, &PlanOptions::default().with("freeze_start", 0.0)));
    assert_eq!(page.matches("<details open><summary class=\"row\"").count(), 2, "stem and layer1.0");
    let layer = page.lines().find(|line| line.contains("<b>layer1.0</b>")).unwrap();
    assert!(layer.contains("3 units"), "{layer}");
    assert!(layer.contains("forward 463 MFLOP"), "{layer}");
}

#[test]
fn a_large_model_has_a_page_that_can_be_sent() {
    let mut model = chain(0);
    for unit in chain(2000).units {
        let path = format!("encoder.layers.{}.attention.projection_{}", unit.index / 8, unit.index % 8);
        model.units.push(crate::modules::Unit { path, ..unit });
    }
    model.costs = chain(2000).costs;
    let page = plan_html(&plan(&model, 300, &PlanOptions::default().with("freeze_start", 0.0)));
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    assert_eq!(unbalanced(&page), None);
    assert!(!page.contains("<details open><summary class=\"row\" style=\"--d:1\">"), "blocks start closed");
}
